"""Evaluation statistics: pass@k, voting, ratings, rankings, tournaments, selective judging."""
