"""The shared harness: policies, sampling, training, reward models, the cache and the meter."""
