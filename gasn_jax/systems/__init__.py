"""Systems reproduced from papers, one module per paper."""
