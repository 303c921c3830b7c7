"""The exact laboratory: worlds whose completions are all enumerated, so that the best possible policy is known."""
