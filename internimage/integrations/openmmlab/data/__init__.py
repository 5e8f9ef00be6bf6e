"""What is wrong with own data, told before a training finds it out."""
