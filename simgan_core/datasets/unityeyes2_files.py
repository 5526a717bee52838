"""UnityEyes' assets as `alexanderdsmith/UnityEyes2` publishes them (MIT): the pinned commit, its files, their sha256.

The skins have no checksum here, as they were only at hand reduced to half their size; `fetch` checks their form.
"""

from __future__ import annotations

REPOSITORY = "alexanderdsmith/UnityEyes2"
COMMIT = "32c1be6380da59169307d0b8e376903a3dcd44c7"

SKIN_NUMBERS = {"f": range(1, 6), "m": range(1, 16)}  # f01 to f05, m01 to m15
SKIN_PARTS = ("color", "color_look_down", "disp")
SKINS = tuple(
    f"Assets/Resources/SkinTextures/{sex}{number:02d}_{part}.png"
    for sex, numbers in SKIN_NUMBERS.items()
    for number in numbers
    for part in SKIN_PARTS
)

_BY_FOLDER = {
    "Assets/Eyeball/": {
        "eyeball.3ds": "1c81767660d62a305ebc2fd11a1dd424262ff902e1ce819df1cdf20c8e6ff83d",
        "eyeball_glossmap.png": "48cbb92c09f017f020e8190bdfaaba03f58bc41544df5333dd7e5111e93a1aca",
        "eyeball_heightmap.png": "b68bc57296311b96a276559895b7684bd0f5b7dc67f9683dd3b605934d3da24d",
        "eyeball_uvs_masks.png": "0a98cacf949f647d6299689ec1abab21e54da7608a1fcd1373d19410ff3ae2e8",
    },
    "Assets/Lashes/": {
        "eye_lashes.3ds": "667b684e4e7d0f3a6b0567ec5cf13cf242ae34d8d2cd40e8b224e94682417401",
        "lashes_bottom_1.png": "49bed2ab9a11715a437efad2fb366b1996ba3182aeff6b7ab435b8259155c92b",
        "lashes_bottom_2.png": "7c5ab937c1d8ea496f3bc7301c5599aa87a367f74636f91a9d5f88429eec65e8",
        "lashes_top_1.png": "7b67fa9591f368faeadf8fb066491f215f1981c2a2a3e4d36973599568ee2d74",
        "lashes_top_2.png": "19484ff74d3d59d63417be9da6a5f44c7f7ce5082f107a4a213aea3f2613fb12",
        "lashes_uvs.png": "f75724db6897287fe2327bddb56ba9d5df17c3f35b0b3e489271c481e6dc6ed2",
    },
    "Assets/Resources/IrisTextures/": {
        "eyeball_amber.png": "5a450743e6a3f44aaa11fbb3541fe3083a0a8994f9e4ca3fbe47a9ccd95f77cd",
        "eyeball_brown.png": "e0ee60bd22efd6b1dd165b515bda80212917e5fabc1e4636fbf966234bbb589f",
        "eyeball_green.png": "eac4e6c5576ddb63dde2e9b1a908634431914a84bf402aa4fd528dfecf2c7de8",
        "eyeball_grey.png": "48f60c43555e88d0e08cfcfc237342e1db8cbc430ca2c7b7dce42cb7a855e44a",
        "eyeball_grey_1.png": "6ca0988282dfffad84fa834c9fb8f725f7bdc9853fa78b2531c117eadb7e387e",
    },
    "Assets/Resources/ShapePCA/": {
        "mesh_mean.txt": "b13f75f89b4904187df44e3facde033702f9959407e0b041fb16c095ef0746e3",
        "pca_components.txt": "b0ffae9ccb3f796f384e93eb82777c6f82a1c9f9e61bd4fa6d26a07d2b9a8bc5",
        "transformed_mean.txt": "25acae8d94b6c92d9696785d2597b6fd3c3e5933ac5246f588b5b01ea1491ed9",
        "transformed_std.txt": "a022b367638e9dded2b9f99fc3c5aedd0b09f592223ce1369303377410b94ec4",
    },
    "Assets/Resources/SubdivData/": {
        "new_tris_eye_region.txt": "56f63398b5602aaae205dd9c6fed0fb3f517b8e1717aebd0addc92cc475f7aa9",
        "new_tris_eye_wetness.txt": "40dca031519a0f13bd2a8957396d13ec6c07f46db5a1d2bdb862ca90765b6eba",
        "new_v_idxs_eye_region.txt": "8c58f893266c2db2f71fec556af0bbb32e1e8437436c1636fbb62287de70dbcf",
        "new_v_idxs_eye_wetness.txt": "afa4a2cdbbe1ff128dea0ed4b7371c7bc87ddbe41dc93c3f36e7d73342f8ee14",
        "new_v_weights_eye_region.txt": "21003adf8e3fb02df8bdbdc9005eb0b765d402cb25121691157f3c1338a27586",
        "new_v_weights_eye_wetness.txt": "a8b3eb72e5a93ff30e7f10a33955bdcd008c6ccfbffe1fb40b4ab1ade5d0332f",
        "new_verts_eye_region.txt": "ed05a30bab011696980feb1a70e2f3d3df74ae6b5f2c2b97fd8646a5a49d8f9a",
        "new_verts_eye_wetness.txt": "cae372516c48f4d8daa570bc8f88856cfeccc69d05380b504c46706f1348d74c",
    },
    "Assets/Skin Shading/": {
        "DiffuseScatteringOnRing.png": "a30e03985bb96ad2239534be3143d5fe33082355f427aa151a7d30f23cc72120",
        "bukkit_skindetail.jpg": "16c6a3592f94212a385b10f264948f3cd723806868bfeb4898a598a5d0b5312b",
        "caruncle_blend.png": "5f1647ea01d988106591542ac2bb1d22126a4557a1f948bc981d0eaadab7050b",
        "margin_mask_color.png": "682109c17924e9b642f6411e795bf1c90e98da21c997086b37e220123824af25",
        "margin_mask_color_2.png": "5307213e2fc67ec61bb9ab1606485f05952da406ed09fecdb3acf56014546549",
    },
    "Assets/Wetness/": {
        "eye_wetness 1.3ds": "df0816e7f22b99727e670221447faf3cf82c760804a84bbd0dd4b0fcb73f5c4e",
        "eye_wetness.3ds": "57cdee0749b3e392f01898ba9acecaab3ceec3ad2f2ed7ef4f84b10cadcdc80c",
        "wetness_alpha 1.png": "a8827dcd25dc42427615105176e88f5ae9519af2462b1e05e9bdfcf0a142c0e7",
    },
    "Assets/": {
        "eye_region.3ds": "c338a40ef586514c202bc2df7bb8f416c64f45c57a87df3b7bab923f8df33393",
        "syntheseyes.3ds": "459ee5dda6f1449cbff7af2e4a0343fdea6194d66a9528c0835828791f95b9e4",
    },
    "": {
        "LICENSE": "8107ed9f0950a75f09c3b56f19c7d3dbfeb551c5fc1844e215b1aac3c701ebd6",
    },
}
SHA256 = {folder + name: digest for folder, files in _BY_FOLDER.items() for name, digest in files.items()}
