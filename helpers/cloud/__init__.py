"""The cloud client: requests to Google's REST API and what they need, such as sign-in, retries,
buckets, jobs and images. Every stage and every other room may import it; it imports `errors` alone.
`local` starts the local cloud and is the only module that knows `helpers.emulator`.
"""
