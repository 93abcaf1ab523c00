"""The only place of the method that imports Ray or MLflow."""
