"""Host capabilities: what this host's kernel can give a guest; probing, the document, the report."""
