"""What vendors read and write, without their SDKs."""
