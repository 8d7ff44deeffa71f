"""Tasks that are only solved when everything works: `python -m benchmarks.tasks [NAME ...]` (docs/tasks.md).

`definitions` says what each task is and how it is trained, `ours` trains it here, `peer` the same with PyTorch from the
same initial weights on the same batches, `document` keeps the results.
"""
