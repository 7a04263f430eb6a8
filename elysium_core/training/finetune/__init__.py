"""Fine-tuning of pretrained models on mixtures of real data sets, as in the published stages."""
