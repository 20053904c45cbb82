"""The HTTP endpoints: queries and mutations by POST, long polls, health, CORS."""
