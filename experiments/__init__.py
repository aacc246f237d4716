"""Executable claims: one file per sentence of the lectures that can be measured, `<room>/<claim>.py`.

    python -m experiments                        every study
    python -m experiments regression             one room
    python -m experiments car-price --quick      one study, small, in seconds

`study`: what a study is. `runner`: runs one and judges it. `ledger`: the table in README.md.
`statistics` and `style`: for those who write studies.
"""
