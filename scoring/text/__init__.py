"""Reading captions word by word: splitting them, corpora of them, and models of them."""
