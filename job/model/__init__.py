"""The layers and weights of the network. Independent of the dataset."""
