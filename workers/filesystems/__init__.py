"""The filesystems that come with ringmount."""
