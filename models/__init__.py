"""What a model is and how it is run; knows neither DICOM nor the box."""
