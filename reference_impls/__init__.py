"""Reference implementations of generative models: one family to a file, written to be read.

A model here is a plain class whose methods are the capabilities that the family has in closed form; its parameters
decide the device and the dtype, and `sample` draws from the generator that it is given and from nothing else. A change
returns a new model. Nothing here knows who examines it. Each file ends with a few ready-made models, for instance
`reference_impls.gaussian:correlated`; each is a function that needs no argument and accepts `dtype` and `device`.
"""
