-- Creates one table unless the search path finds a table of its name.  "if not exists" would look into the first schema
-- only, and hide a table of a later schema behind an empty one.
do $dcm_ws$ begin
    if to_regclass('@name@') is null then
@definition@
    end if;
end $dcm_ws$;
