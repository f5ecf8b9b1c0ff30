-- Controlling makes its own views of what it is given. The tables come from the sink.
CREATE SCHEMA report;

CREATE FUNCTION report.hours() RETURNS TABLE (department text, employees bigint, hours numeric) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e.department::text, count(DISTINCT e.emp_no), sum(b.hours)
        FROM staff.employee e JOIN staff.booking b USING (emp_no) GROUP BY 1 ORDER BY 1;
END $$;
