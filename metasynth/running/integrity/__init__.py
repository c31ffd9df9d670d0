"""What ties the files of a run together: sealed JSON, the checks before it goes on, the claim of its folder."""
