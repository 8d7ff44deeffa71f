"""The check of a cell that somebody wrote in plain NumPy; `lstm_np.check_cell` and `python -m lstm_np.gradcheck FILE`.

In the order of what happens:

    user_code.py    runs the file and its functions; whatever happens in them becomes one line
    file.py         finds the pairs of forward and backward functions in a file      classes.py  a class as such a pair
    names.py        what arguments and results are, by the names that courses give them
    arrangement.py  how arrays may be laid out, and where each gate may stand
    subject.py      tries them until forward runs, and finds which cell it is
    check.py        calls both functions, differentiates forward, and compares
    equations.py    the cells' equations as data, so that a line can be changed
    mistakes.py     the changes that known mistakes are
    diagnosis.py    which of them give the wrong numbers, and where numbers are wrong
    wording.py      says so in the learner's own names; corrected.py writes the line as it should be
    report.py       the report
"""
