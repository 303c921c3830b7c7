"""Speed, side by side with TRL and with ``transformers.generate``, in one process and on the same work."""
