"""Fine-tuning of pretrained models on real data: mixtures of data sets, the published stages."""
