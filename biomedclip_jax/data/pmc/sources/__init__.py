"""Where articles come from: one `Source` for each form in which PMC gives or gave them out.

In: an address or path. Out: `ArticleFiles`, an article at a time, and with `fetch` a copy of a part of the cloud. Read
`open` first: the contract, and who reads what. `folders`, `packages`, `cloud` (with `cloud_layout`, `inventory`, `s3`)
are the readers, `selection` says which articles are asked for.
"""
