"""One file per question that can be asked of a network: numbers in, a result out; nothing is drawn or written here."""
