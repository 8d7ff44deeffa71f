"""The base of every error that lstm_np raises on purpose."""


class LstmNpError(Exception):
    """Something that was asked for cannot be done; one line: what was found, what was expected, what to do.

    Each kind also derives from the built-in exception that fits it (`WeightsError` is a ValueError, `RunFolderError` an
    OSError), so that code which catches those goes on working.

    >>> try:
    ...     lstm_np.LSTM(3, 5, dropout="0.5")
    ... except lstm_np.LstmNpError as error:
    ...     print(error)
    dropout must be a number, found '0.5'
    """
