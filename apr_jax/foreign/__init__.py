"""Networks of other libraries as functions of pixels, checked before they are used."""
