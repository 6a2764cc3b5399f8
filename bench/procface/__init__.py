"""The landmark control benchmark on procedural faces, where the exact answer is known.

`python -m bench.procface --help`; docs/control_benchmark.md says what each number means.

pairs: which faces. tasks: what is asked of a method. networks, methods, drive: who answers. score,
metrics: how right the answer is. run, store, progress: doing it, and surviving a kill. summary,
plots, sheet, report: telling it.
"""
