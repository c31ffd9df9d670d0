"""The bilevel core: hypergradients through `higher` monkeypatched models; it knows nothing about images."""
