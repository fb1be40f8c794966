"""What a worker process needs: kernel tables, codec, ring, arena, engine, filesystem API, filesystems."""
