from flow import Flow

from harness import parametrize_with_checks


@parametrize_with_checks([Flow()])
def test_conforms(model, check):
    check(model)
