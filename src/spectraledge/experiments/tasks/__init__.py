"""What is learned: data, loss and evaluation of each catalogued experiment."""
