"""See inside a trained model: the views of `python -m lstm_np.explain`, each a module that makes text or a file."""
