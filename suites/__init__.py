"""Where the examiner (`harness`) meets the models (`reference_impls`): the only package that knows both."""
