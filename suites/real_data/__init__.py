"""Reference models on real data: what each was given, what came out, and the bars that it should reach.

bars.py     the figures to reach, as data
fits.py     the two models whose fit takes choices: a mixture of Bernoullis, and 784 logistic regressions
cases.py    every model with its data, and what is measured of it
rows.py     one measured figure as a row; the file of rows
__main__.py the command
"""
