"""What is made of finished fields of view: tables, fits, exports, pictures."""
