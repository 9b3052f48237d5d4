"""Product feedback alignment (arXiv 2405.20594), the second paper: its targets, networks, profiles and claims."""
