"""The console's pages: a project's jobs, models, endpoints, buckets and costs in the browser.

A client like a notebook: it asks Google's REST API through a `Session` and has no other way in, so
that it shows a google project as it shows the local cloud. It runs in a process of its own, which
`cloud.console` starts; nobody imports it. `process` begins and ends, `server` lets in and renders,
`visits` is what views take and give; the other files are the pages, a function each.
"""
