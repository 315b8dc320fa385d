"""What requests and answers are made of: ids, times, pages, masks."""
