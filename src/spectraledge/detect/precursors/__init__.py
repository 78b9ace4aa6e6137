"""What precedes grokking: candidates, the protocol that judges them, and the rules frozen before they were judged.

Works on recordings; knows nothing about torch.
"""
