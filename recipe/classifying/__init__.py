"""The task of recipes for labelled text: fine-tuning, its predictions and its confusion matrix."""
