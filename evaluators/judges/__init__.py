"""Judges that compare two completions after training: models, recorded verdicts, scorers, and rules to compare with."""
