"""The figures and tables of the paper, each a function from tables to what a target shows of them."""
