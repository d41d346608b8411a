"""FAISS answers over numbered rows: which rows are nearest to these queries?"""
