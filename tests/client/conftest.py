import os, pytest


@pytest.fixture(scope="session")
def bootstrap():
    return os.environ["CLI_B"]
