//! What an object is: metadata, selectors, quantities, schema, patch, apply, validation and the rows of built-in kinds. No I/O.
