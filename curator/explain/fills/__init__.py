"""What stands for hidden pixels."""
