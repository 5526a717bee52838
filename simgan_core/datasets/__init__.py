"""Data: the store that everything reads, one adapter per data set, preparation of a run's stores, and downloads.

`store` holds images and annotations; `unityeyes`, `mpiigaze` and `folder` bring other people's layouts into it;
`prepare` makes the stores of a run; `fetch` downloads what may be downloaded. Import from the modules.
"""
