"""Studies: each module is run by hand, takes minutes, and writes the figures and the picture of a page in docs/.

In: the package, and seeds. Out: files of docs/. Must never know: recorded data, so that anybody can run them.
"""
