"""Names that are markup, and requests that are none of the page's."""
