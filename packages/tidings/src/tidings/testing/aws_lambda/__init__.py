"""AWS Lambda on this machine: a function as real processes, and an SQS queue as its event source."""

try:
    from tidings.testing.aws_lambda.environment import Result
    from tidings.testing.aws_lambda.event_source import EventSource
    from tidings.testing.aws_lambda.function import LambdaFunction
except ModuleNotFoundError as error:
    raise ImportError(f'tidings.testing.aws_lambda needs {error.name}: pip install "tidings[aws]".') from error

__all__ = ["EventSource", "LambdaFunction", "Result"]
