-- Statements of publish.sql for data that is text: PostgreSQL raises an exception if it is not JSON.
    valid := said::json;
