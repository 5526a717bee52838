"""The visual Turing test (section 3.1, table 1): plan, storage, scoring, analysis and screen of a study on people."""
